"""Random cells with the channel models of 3GPP, devices and adapters as they are."""
