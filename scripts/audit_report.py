"""What pip-audit found, in one line for each vulnerability; started by scripts/audit.

pip-audit counts a version that its service does not know as skipped, and succeeds: here that is a failure of its own.
"""

import json
import sys
from pathlib import Path


def main() -> int:
    """0 when no vulnerability is known, 1 when some are, 2 when some versions could not be looked up."""
    found = json.loads(Path(sys.argv[1]).read_text())["dependencies"]
    skipped = [dependency["name"] for dependency in found if "skip_reason" in dependency]
    vulnerable = [(dependency, known) for dependency in found for known in dependency.get("vulns", ())]
    for dependency, known in vulnerable:
        fixed = ", ".join(known["fix_versions"]) or "no version yet"
        print(f"{dependency['name']} {dependency['version']}: {known['id']}, fixed in {fixed}")
    print(f"{len(found)} versions, {len(vulnerable)} known vulnerabilities, {len(skipped)} not looked up")
    if vulnerable:
        return 1
    if skipped:
        print("audit: the vulnerability service does not know these, or cannot be reached from here", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
