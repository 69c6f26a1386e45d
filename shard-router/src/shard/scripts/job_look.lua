-- KEYS: items claimed stalled kept-result. ARGV: id.
local items, claimed, stalled, kept = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id = ARGV[1]
local result = redis.call('GET', kept)
if result then return {'kept', result} end
if redis.call('HEXISTS', items, id) == 0 then return {'gone'} end
if redis.call('ZSCORE', claimed, id) then return {'claimed'} end
if redis.call('SISMEMBER', stalled, id) == 1 then return {'stalled'} end
return {'queued'}
