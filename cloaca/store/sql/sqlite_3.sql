-- Version 3: runs that have not ended are found without a look at all those that have. A status begins with its phase,
-- and one that would not is only looked at in vain.
CREATE INDEX unfinished_runs ON objects (kind, namespace, name)
WHERE kind = 'WorkflowRun'
  AND substr(status, 1, 12) NOT IN ('{"phase":"Co', '{"phase":"Fa', '{"phase":"Ca', '{"phase":"De');
