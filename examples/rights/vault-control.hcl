# Vault or OpenBao: the policy of control and standalone nodes.
path "secret/data/acme/*"     { capabilities = ["create", "read", "update"] }
path "secret/metadata/acme/*" { capabilities = ["read", "list", "delete"] }
