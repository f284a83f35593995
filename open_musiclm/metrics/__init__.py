"""What generated music and codecs are measured by."""
