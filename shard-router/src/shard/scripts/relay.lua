-- ARGV: channel payload.
say(ARGV[1], ARGV[2])
return {'ok'}
