-- How objects of provisioning.dev stand, for Argo CD. The same for every kind.
local health = {status = "Progressing", message = "not looked at yet"}
if obj.status == nil or obj.status.conditions == nil then
  return health
end

local generation = obj.metadata.generation
local holds, reason = {}, nil
for _, condition in ipairs(obj.status.conditions) do
  holds[condition.type] = condition.status == "True"
  if condition.type == "Ready" and condition.observedGeneration == generation then
    reason = condition.reason
    health.message = condition.reason .. ": " .. condition.message
  end
end

-- What is said of an earlier spec says nothing about this one.
if obj.status.observedGeneration ~= generation or reason == nil then
  if reason == nil then
    health.message = "the newest spec has not been looked at yet"
  end
  return health
end

if holds.Stalled then
  health.status = "Degraded"
elseif reason == "Suspended" then
  health.status = "Suspended"
elseif holds.Ready and not holds.Reconciling then
  health.status = "Healthy"
end
return health
