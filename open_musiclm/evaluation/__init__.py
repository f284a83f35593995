"""How good generated music is: a judge of instruments and tempo, distances between sets of clips, memorising."""
