-- PostgreSQL: the rights of data nodes, which log in as acme_data. Run it as the owner of the table, after a control node
-- has created it. Control nodes log in as the owner, who sees all rows.
GRANT SELECT, INSERT, UPDATE, DELETE ON mitmproxy_acme TO acme_data;
ALTER TABLE mitmproxy_acme ENABLE ROW LEVEL SECURITY;
CREATE POLICY data_reads ON mitmproxy_acme FOR SELECT TO acme_data
    USING (key !~ '^(accounts|budgets|compromised|expired|housekeeping|leases)/');
CREATE POLICY data_inserts ON mitmproxy_acme FOR INSERT TO acme_data
    WITH CHECK (key !~ '^(accounts|budgets|certificates|compromised|expired|housekeeping|leases)/');
CREATE POLICY data_updates ON mitmproxy_acme FOR UPDATE TO acme_data
    USING (key !~ '^(accounts|budgets|certificates|compromised|expired|housekeeping|leases)/');
CREATE POLICY data_deletes ON mitmproxy_acme FOR DELETE TO acme_data
    USING (key !~ '^(accounts|budgets|certificates|compromised|expired|housekeeping|leases)/');
