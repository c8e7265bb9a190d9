"""The format of a proof on file: prices, cuts and owners that the checker takes; no solver, no formula."""
