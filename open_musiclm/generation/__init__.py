"""From prompts and tokens to sound."""
