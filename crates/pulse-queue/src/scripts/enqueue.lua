-- Adds entries, and sums their weights by user.
-- KEYS: tasks, bulk, backlog, deep. ARGV: the limit of a user who is not deep; then task id, user, weight and
-- traceparent ('' for none) of each entry.
local limit = tonumber(ARGV[1])
local users = {}

local function load(id)
  local weight = tonumber(redis.call('HGET', KEYS[3], id) or 0)
  -- A deep user has entries.
  local deep = weight > 0 and redis.call('SISMEMBER', KEYS[4], id) == 1
  local user = { weight = weight, added = 0, deep = deep, becomes_deep = false }
  users[id] = user
  return user
end

-- The first write is XADD: if Redis is full, it is refused and nothing has changed. Later writes of a script are not.
for i = 2, #ARGV, 4 do
  local task, id, weight, traceparent = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local user = users[id] or load(id)
  if not user.deep and user.weight + user.added >= limit then
    user.deep = true
    user.becomes_deep = true
  end
  local stream = user.deep and KEYS[2] or KEYS[1]
  if traceparent == '' then
    redis.call('XADD', stream, '*', 'task_id', task, 'user', id, 'weight', weight)
  else
    redis.call('XADD', stream, '*', 'task_id', task, 'user', id, 'weight', weight, 'traceparent', traceparent)
  end
  user.added = user.added + tonumber(weight)
end
for id, user in pairs(users) do
  redis.call('HINCRBY', KEYS[3], id, user.added)
  if user.becomes_deep then
    redis.call('SADD', KEYS[4], id)
  end
end
