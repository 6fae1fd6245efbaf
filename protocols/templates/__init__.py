"""Device templates: products described as data, each with the recorded example that proves it."""
