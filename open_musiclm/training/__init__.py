"""One trainer class per part, on one shared loop."""
