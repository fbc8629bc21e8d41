# Consul: the policy of data nodes; that of control nodes is key_prefix "acme/" { policy = "write" }. The longest matching
# prefix decides. The times at which values expire are stored under acme/expiries/.
key_prefix "acme/"                    { policy = "write" }
key_prefix "acme/values/accounts/"    { policy = "deny" }
key_prefix "acme/values/budgets/"     { policy = "deny" }
key_prefix "acme/values/certificates/" { policy = "read" }
key_prefix "acme/values/compromised/" { policy = "deny" }
key_prefix "acme/values/expired/"     { policy = "deny" }
key_prefix "acme/values/housekeeping/" { policy = "deny" }
key_prefix "acme/values/leases/"      { policy = "deny" }
