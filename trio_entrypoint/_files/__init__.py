"""Ground floor: atomic generations of configuration, safe archives, differences of trees."""
