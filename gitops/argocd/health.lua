-- How objects of provisioning.dev stand, for Argo CD. The same for every kind.
local health = {status = "Progressing", message = "not looked at yet"}
if obj.status == nil or obj.status.conditions == nil then
  return health
end

local holds, reason = {}, nil
for _, condition in ipairs(obj.status.conditions) do
  -- What is said of an earlier spec says nothing about this one.
  if condition.observedGeneration == obj.metadata.generation then
    holds[condition.type] = condition.status == "True"
    if condition.type == "Ready" then
      reason = condition.reason
      health.message = condition.reason .. ": " .. condition.message
    end
  end
end

if reason == nil then
  health.message = "the newest spec has not been looked at yet"
elseif holds.Stalled then
  health.status = "Degraded"
elseif reason == "Suspended" then
  health.status = "Suspended"
elseif holds.Ready then
  health.status = "Healthy"
end
return health
