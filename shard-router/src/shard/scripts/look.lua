-- KEYS: ids items config.
return {'ok', (shape_of(KEYS[1], KEYS[2], KEYS[3]))}
