"""Sound or text to tokens, and back."""
