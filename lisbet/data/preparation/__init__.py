"""From a recording as read to prepared coordinates, and whether two preparations agree."""
