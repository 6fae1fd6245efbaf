"""Values read back by tag and time: roll-ups and an index derived from the journal, and the questions they answer."""
