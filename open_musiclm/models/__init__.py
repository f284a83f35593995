"""The transformer, the three stages and the hierarchy that turns a prompt into a wave."""
