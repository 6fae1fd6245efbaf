"""What lets one release follow another on the same data, forth and back. See decision 0014."""
