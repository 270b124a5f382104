"""One plug-in of each kind for the LISBET training toolkit."""
