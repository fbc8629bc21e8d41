"""What Redis does atomically: one Lua script for each call of the contract.

Three kinds of Redis keys, all in one slot of a cluster, so that a script may change them together:

    PREFIXvalue:KEY   a hash: v the value, e its expiry (milliseconds; missing: never), s the stamp of its write
    PREFIXkeys        a sorted set of all keys, all with score 0: Redis sorts those by their bytes
    PREFIXexpiries    a sorted set of the expiring keys, by expiry

The time is the server's. Redis's own expiry is not used: it would remove the value and leave the key in the set.
Instead, each change first removes what has expired, with a limit so that the server is not blocked; expired values
count as absent before that.

This module knows Lua and Redis's commands; it must not know a client, or the meaning of any key.
"""

from typing import NamedTuple

# KEYS: the value, keys, expiries. ARGV: the prefix of a value's Redis key, our key, the time or empty, and more.
_BEGIN = """
local value, index, expiries = KEYS[1], KEYS[2], KEYS[3]
local base, name, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local function unlist(key)
  redis.call('ZREM', index, key)
  redis.call('ZREM', expiries, key)
end

local function forget(redis_key, key)
  redis.call('DEL', redis_key)
  unlist(key)
end

-- Remove what has expired, except what this user may not remove; return whether any may be left.
local function purge(count)
  local due = redis.call('ZRANGEBYSCORE', expiries, '-inf', now, 'LIMIT', 0, count)
  local left = #due == count
  for _, key in ipairs(due) do
    local done = redis.pcall('DEL', base .. key)
    if type(done) == 'table' and done.err then
      left = true
    else
      unlist(key)
    end
  end
  return left
end

-- 'absent', 'corrupt', or 'there' and the value
local function look()
  local found = redis.pcall('HMGET', value, 'v', 'e')
  if found.err then
    if string.find(found.err, 'WRONGTYPE', 1, true) then
      return 'corrupt'
    end
    redis.call('HMGET', value, 'v', 'e') -- fails again, and now ends the script
  end
  local expires = found[2] and tonumber(found[2])
  if not found[1] or (found[2] and not expires) then
    return redis.call('EXISTS', value) == 0 and 'absent' or 'corrupt'
  end
  if expires and expires <= now then
    return 'absent'
  end
  if #found[1] > 65536 then -- MAX_VALUE: a longer value was not written by this store, and is not sent
    return 'corrupt'
  end
  return 'there', found[1]
end

local function write(new, ttl, stamp)
  -- First: when its memory is full, Redis refuses commands that need more, but not after a script has changed data.
  redis.call('ZADD', index, 0, name)
  purge(100)
  redis.call('DEL', value)
  redis.call('HSET', value, 'v', new, 's', stamp)
  redis.call('ZADD', index, 0, name)
  if ttl == '' then
    redis.call('ZREM', expiries, name)
  else
    local expires = now + tonumber(ttl)
    redis.call('HSET', value, 'e', expires)
    redis.call('ZADD', expiries, expires, name)
  end
end
"""

_GET = """
local state, held = look()
return {state, held}
"""

# ARGV: the value, its ttl in milliseconds or empty, the stamp
_PUT = """
write(ARGV[4], ARGV[5], ARGV[6])
"""

# ARGV: whether there is an old value, and that value; whether there is a new one, that value, its ttl, the stamp
_SWAP = """
local state, held = look()
local same
if ARGV[4] == '1' then
  same = state == 'there' and held == ARGV[5]
else
  same = state == 'absent'
end
if not same then
  return 0
end
if ARGV[6] == '1' then
  write(ARGV[7], ARGV[8], ARGV[9])
elseif ARGV[4] == '1' then
  forget(value, name)
end
return 1
"""

_DELETE = """
purge(100)
forget(value, name)
"""

# ARGV: the first and last key in ZRANGEBYLEX's syntax, the limit; also returns where to continue, or empty
_KEYS = """
local more = purge(1000)
local limit = tonumber(ARGV[6])
local found = redis.call('ZRANGEBYLEX', index, ARGV[4], ARGV[5], 'LIMIT', 0, limit)
local cursor = #found == limit and found[limit] or ''
if not more then
  return {cursor, found}
end
local alive = {}
for _, key in ipairs(found) do
  local expires = redis.call('ZSCORE', expiries, key)
  if not expires or tonumber(expires) > now then
    alive[#alive + 1] = key
  end
end
return {cursor, alive}
"""

_STAMP = "return redis.call('HGET', value, 's')"


class Scripts(NamedTuple):
    """The scripts' source."""

    get: str = _BEGIN + _GET
    put: str = _BEGIN + _PUT
    swap: str = _BEGIN + _SWAP
    delete: str = _BEGIN + _DELETE
    keys: str = _BEGIN + _KEYS
    stamp: str = _BEGIN + _STAMP


SCRIPTS = Scripts()
