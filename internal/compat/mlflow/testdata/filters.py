"""Reads JSON [dialect, filter] lines, writes what MLflow's own parser makes of each: clauses, or null for a refusal."""
import json, sys

from mlflow.utils.search_utils import SearchExperimentsUtils, SearchModelUtils, SearchModelVersionUtils, SearchUtils

dialects = {"runs": SearchUtils, "experiments": SearchExperimentsUtils, "models": SearchModelUtils, "versions": SearchModelVersionUtils}
for line in sys.stdin:
    name, text = json.loads(line)
    d = dialects[name]
    try:
        out = []
        for c in d.parse_search_filter(text):
            kind, key, op = c["type"], d.translate_key_alias(c["key"]), c["comparator"].upper()
            # The stores check the comparator after parsing, with these.
            if name == "runs":
                ok = d.is_string_attribute(kind, key, op) or d.is_numeric_attribute(kind, key, op) or d.is_metric(kind, op) or d.is_param(kind, op) or d.is_tag(kind, op) or d.is_dataset(kind, op)
            else:
                ok = kind == "tag" and op in d.VALID_TAG_COMPARATORS or kind == "attribute" and op in (d.VALID_NUMERIC_ATTRIBUTE_COMPARATORS if key in d.NUMERIC_ATTRIBUTES else d.VALID_STRING_ATTRIBUTE_COMPARATORS)
            assert ok
            v = c["value"]
            assert isinstance(v, tuple) == (op in ("IN", "NOT IN"))  # else the database fails
            if kind == "metric" or kind == "attribute" and key in d.NUMERIC_ATTRIBUTES:
                v = float(v)
            out.append([kind, key, op, list(v) if isinstance(v, tuple) else v])
        print(json.dumps(out))
    except Exception:
        print("null")
