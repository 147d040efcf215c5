"""The theorems at work: embeddings optimised directly on the sphere, with no encoder, beside what theory predicts."""
