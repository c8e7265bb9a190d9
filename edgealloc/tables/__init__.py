"""Columns and arrays of one's own: frames, .csv, .npy, .npz and .mat files, units by the name of a column."""
