"""What everything else stands on: writing without loss, locks."""
