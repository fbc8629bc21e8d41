# Vault or OpenBao: the policy of data nodes. They read certificates, challenges and refusals, request certificates, and
# report that they are up; they have no rights to accounts/, compromised/, leases/ and budgets/.
path "secret/data/acme/backoffs/*"         { capabilities = ["read"] }
path "secret/metadata/acme/backoffs/*"     { capabilities = ["read", "list"] }
path "secret/data/acme/calendar/*"         { capabilities = ["create", "read", "update"] }
path "secret/data/acme/certificates/*"     { capabilities = ["read"] }
path "secret/metadata/acme/certificates/*" { capabilities = ["read", "list"] }
path "secret/data/acme/challenges/*"       { capabilities = ["read"] }
path "secret/metadata/acme/challenges/*"   { capabilities = ["read", "list"] }
path "secret/data/acme/changes/*"          { capabilities = ["create", "read", "update"] }
path "secret/metadata/acme/changes/*"      { capabilities = ["read", "list", "delete"] }
path "secret/data/acme/events/*"           { capabilities = ["create", "read", "update"] }
path "secret/metadata/acme/events/*"       { capabilities = ["read", "list", "delete"] }
path "secret/data/acme/nodes/*"            { capabilities = ["create", "read", "update"] }
path "secret/metadata/acme/nodes/*"        { capabilities = ["read", "list", "delete"] }
path "secret/data/acme/probes/*"           { capabilities = ["create", "read", "update"] }
path "secret/metadata/acme/probes/*"       { capabilities = ["read", "list", "delete"] }
path "secret/data/acme/refusals/*"         { capabilities = ["create", "read", "update"] }
path "secret/metadata/acme/refusals/*"     { capabilities = ["read", "list", "delete"] }
path "secret/data/acme/renewal-info/*"     { capabilities = ["read"] }
path "secret/data/acme/requests/*"         { capabilities = ["create", "read", "update"] }
path "secret/metadata/acme/requests/*"     { capabilities = ["read", "list", "delete"] }
path "secret/data/acme/usage/*"            { capabilities = ["create", "read", "update"] }
