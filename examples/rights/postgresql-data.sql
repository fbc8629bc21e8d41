-- PostgreSQL: the rights of data nodes, who log in as acme_data; run it as the owner of the table, once a control node
-- has made it. The owner, whom control nodes log in as, sees all rows.
GRANT SELECT, INSERT, UPDATE, DELETE ON mitmproxy_acme TO acme_data;
ALTER TABLE mitmproxy_acme ENABLE ROW LEVEL SECURITY;
CREATE POLICY data_reads ON mitmproxy_acme FOR SELECT TO acme_data
    USING (key !~ '^(accounts|budgets|compromised|leases)/');
CREATE POLICY data_inserts ON mitmproxy_acme FOR INSERT TO acme_data
    WITH CHECK (key !~ '^(accounts|budgets|certificates|compromised|leases)/');
CREATE POLICY data_updates ON mitmproxy_acme FOR UPDATE TO acme_data
    USING (key !~ '^(accounts|budgets|certificates|compromised|leases)/');
CREATE POLICY data_deletes ON mitmproxy_acme FOR DELETE TO acme_data
    USING (key !~ '^(accounts|budgets|certificates|compromised|leases)/');
