-- What several verbs share. Every script begins with this text.
-- A script checks first and writes then, counters before everything else, so that
-- the one write that can still fail (a counter that is no number) changes nothing.

-- How many old items one verb retracts at most; the next verb goes on.
local TRIM = 1000

local function say(channel, payload)
  redis.call('PUBLISH', channel, payload)
end

local function type_of(key)
  return redis.call('TYPE', key).ok
end

-- What a feed is: the word for its type, `none` where nothing says, `list` for a list
-- without a config, `KEY:TYPE` where a key is of a type the contract does not know.
-- The second answer is what its config says.
local function shape_of(ids, items, config)
  local held = type_of(config)
  if held ~= 'none' and held ~= 'hash' then return 'feed.config:' .. held, false end
  local typed = held == 'hash' and redis.call('HGET', config, 'type')
  if typed == 'pyqueue' then typed = 'queue' end
  held = type_of(items)
  if held ~= 'none' and held ~= 'hash' then return 'feed.items:' .. held, typed end
  held = type_of(ids)
  if held == 'zset' then return 'feed', typed end
  if held == 'list' then
    if not typed then return 'list', typed end
    if typed == 'queue' or typed == 'job' then return typed, typed end
    return 'sorted_feed', typed
  end
  if held ~= 'none' then return 'feed.ids:' .. held, typed end
  return typed or 'none', typed
end

local function fits(shape, want)
  return shape == want or shape == 'none' or (shape == 'list' and want ~= 'feed')
end

-- Enters a feed into the set `feeds` and says so, where it is not in there yet.
local function register(feeds, config, feed, shape, typed, want, max, instance)
  local new = redis.call('SADD', feeds, feed) == 1
  if not typed then
    redis.call('HSET', config, 'type', want)
    if new and shape == 'none' and max ~= '' then
      redis.call('HSET', config, 'max_length', max)
    end
  end
  if new then say('newfeed', feed .. '\0' .. instance) end
  if new or not typed then say('conffeed', feed .. '\0' .. instance) end
end

local function max_length(config)
  return tonumber(redis.call('HGET', config, 'max_length') or '') or 0
end

-- Seconds with six digits behind the point, as text: a Lua number would lose some.
local function seconds()
  local now = redis.call('TIME')
  return now[1] .. '.' .. string.rep('0', 6 - #now[2]) .. now[2]
end

local function milliseconds()
  local now = redis.call('TIME')
  return string.format('%.0f', tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000))
end

-- Writes an item of a plain feed, trims, announces; 1 where the id is new.
local function put_plain(ids, items, config, feed, id, item)
  local max = max_length(config)
  local excess = 0
  if max >= 1 then
    local known = redis.call('ZSCORE', ids, id)
    excess = redis.call('ZCARD', ids) + (known and 0 or 1) - max
    if excess > TRIM then excess = TRIM end
  end
  if excess >= 1 then
    for _, old in ipairs(redis.call('ZRANGE', ids, 0, excess)) do
      if excess >= 1 and old ~= id then
        redis.call('ZREM', ids, old)
        redis.call('HDEL', items, old)
        say('feed.retract:' .. feed, old)
        excess = excess - 1
      end
    end
  end
  local new = redis.call('ZADD', ids, seconds(), id)
  redis.call('HSET', items, id, item)
  say((new == 1 and 'feed.publish:' or 'feed.edit:') .. feed, id .. '\0' .. item)
  return new
end

-- The id of the neighbour that a place names, or false for `begin:` and `:end`.
local function neighbour_of(place)
  if place == 'begin:' or place == ':end' then return false end
  if string.sub(place, 1, 1) == ':' then return string.sub(place, 2) end
  return string.sub(place, 1, -2)
end

-- Tells whether the id is in the list and has an item.
local function in_sorted(ids, items, id)
  return redis.call('HEXISTS', items, id) == 1 and redis.call('LPOS', ids, id) ~= false
end

local function link(ids, id, place)
  if place == 'begin:' then
    redis.call('LPUSH', ids, id)
  elseif place == ':end' then
    redis.call('RPUSH', ids, id)
  else
    local side = string.sub(place, 1, 1) == ':' and 'BEFORE' or 'AFTER'
    redis.call('LINSERT', ids, side, neighbour_of(place), id)
  end
end

-- Counts up to an id that no item has; a counter that was lost catches up in leaps.
local function next_id(idincr, items)
  local step, tries = 1, 1
  local id = string.format('%.0f', redis.call('INCRBY', idincr, 1))
  while redis.call('HEXISTS', items, id) == 1 do
    if tries >= 100 then step = step * 2 end
    id = string.format('%.0f', redis.call('INCRBY', idincr, step))
    tries = tries + 1
  end
  return id
end

-- Writes a new item of a sorted feed, announces, trims from the begin. The retracts
-- come last: the position may name a neighbour that is trimmed away.
local function put_sorted(ids, items, config, feed, id, item, place)
  link(ids, id, place)
  redis.call('HSET', items, id, item)
  say('feed.publish:' .. feed, id .. '\0' .. item)
  say('feed.position:' .. feed, id .. '\0' .. place)
  local max = max_length(config)
  if max < 1 then return end
  local excess = redis.call('LLEN', ids) - max
  if excess > TRIM then excess = TRIM end
  if excess < 1 then return end
  for _, old in ipairs(redis.call('LRANGE', ids, 0, excess)) do
    if excess >= 1 and old ~= id then
      redis.call('LREM', ids, 1, old)
      redis.call('HDEL', items, old)
      say('feed.retract:' .. feed, old)
      excess = excess - 1
    end
  end
end

-- Writes another item under an id that a sorted feed has.
local function edit_sorted(items, feed, id, item)
  redis.call('HSET', items, id, item)
  say('feed.publish:' .. feed, id .. '\0' .. item)
end

local function remove(shape, ids, items, feed, id)
  local gone
  if shape == 'feed' then
    gone = redis.call('ZREM', ids, id)
  else
    gone = redis.call('LREM', ids, 0, id)
  end
  gone = gone + redis.call('HDEL', items, id)
  if gone > 0 then say('feed.retract:' .. feed, id) end
  return gone
end

-- Every id as it is listed.
local function listed(ids, held)
  if held == 'zset' then return redis.call('ZRANGE', ids, 0, -1) end
  if held == 'list' then return redis.call('LRANGE', ids, 0, -1) end
  return {}
end

-- How many ids one command is asked for: a call takes some thousands of words, not more.
local CHUNK = 1000

-- Every id as it is listed, and beside each its item, or false.
local function load(ids, items, held)
  local order, found = listed(ids, held), {}
  for first = 1, #order, CHUNK do
    local last = math.min(first + CHUNK - 1, #order)
    for _, item in ipairs(redis.call('HMGET', items, unpack(order, first, last))) do
      found[#found + 1] = item
    end
  end
  return order, found
end
