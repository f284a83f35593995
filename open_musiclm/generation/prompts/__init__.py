"""Prompts: texts, sounds, mixtures and stories, checked, described and embedded; given sounds to continue."""
