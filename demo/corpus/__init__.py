"""Renders a captioned corpus of music: real scores, rearranged and played by a soundfont.

Needs the "demo" extra: music21 (scores), tinysoundfont (sound) and pretty_midi (its wheel carries a soundfont).
"""
