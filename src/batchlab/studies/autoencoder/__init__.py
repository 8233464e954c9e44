"""Does the batch size decide which minimum is found? A single-neuron autoencoder (ghosh2023)."""
