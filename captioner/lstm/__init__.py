"""The captioner of this package: a CNN, an attention LSTM and beam search."""
