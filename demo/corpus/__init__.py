"""Captioned music to learn from where there is none: real scores, arranged anew and played by a soundfont.

Needs the "demo" extra: music21 (scores), tinysoundfont (sound) and pretty_midi (its wheel carries a soundfont).
"""
