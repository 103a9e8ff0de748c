#!/usr/bin/env python3
"""The table of `logmill quickstart`, computed independently: plain Python, standard library only.

    quakes_per_day.py FEED                  prints the rows as JSON, in order of net and day
    quakes_per_day.py FEED --check SQLITE   compares them with the table in that file: counts and
                                            maxima exactly, means within 1e-9; exit 1 if they differ

An event counts if its type is "earthquake" and it has a network, a magnitude, and a time that a
calendar has and that is not more than an hour from now. Days are UTC.
"""

import json
import math
import sqlite3
import sys
import time

DAY_MS = 86_400_000
LARGEST_MS = 253_402_300_799_999  # the year 9999
SMALLEST_MS = -62_135_596_800_000  # the year 1


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_time(value):
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return SMALLEST_MS <= value <= min(LARGEST_MS, (time.time() + 3600) * 1000)


def day_of(time_ms):
    days = time_ms // DAY_MS
    # Civil date from days since 1970-01-01, by counting 400-year cycles from 1 March of year 0.
    days += 719_468
    era, day_of_era = divmod(days, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = era * 400 + year_of_era + (1 if month <= 2 else 0)
    return f"{year:04d}-{month:02d}-{day:02d}"


def compute(feed):
    magnitudes = {}
    for feature in feed["features"]:
        properties = feature.get("properties") if isinstance(feature, dict) else None
        if not isinstance(properties, dict) or properties.get("type") != "earthquake":
            continue
        net, magnitude, at = (properties.get(name) for name in ("net", "mag", "time"))
        if isinstance(net, str) and is_number(magnitude) and is_time(at):
            magnitudes.setdefault((net, day_of(at)), []).append(magnitude)
    return [
        {
            "net": net,
            "day": day,
            "count": len(values),
            "max_mag": float(max(values)),
            "mean_mag": math.fsum(values) / len(values),
        }
        for (net, day), values in sorted(magnitudes.items())
    ]


def differences(expected, path):
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    columns = [(row[1], row[2], row[5]) for row in database.execute("PRAGMA table_info(quakes_per_day)")]
    wanted = [
        ("net", "TEXT", 1), ("day", "TEXT", 2), ("count", "INTEGER", 0), ("max_mag", "REAL", 0),
        ("mean_mag", "REAL", 0),
    ]
    if columns != wanted:
        yield f"the columns are {columns}, not {wanted}"
    query = "SELECT net, day, count, max_mag, mean_mag FROM quakes_per_day ORDER BY net, day"
    found = {(row[0], row[1]): row[2:] for row in database.execute(query)}
    for row in expected:
        key = (row["net"], row["day"])
        if key not in found:
            yield f"{key} is missing"
            continue
        count, largest, mean = found.pop(key)
        if (count, largest) != (row["count"], row["max_mag"]) or abs(mean - row["mean_mag"]) > 1e-9:
            yield f"{key} is {(count, largest, mean)}, not {(row['count'], row['max_mag'], row['mean_mag'])}"
    for key in found:
        yield f"{key} should not be there"


def main(arguments):
    if len(arguments) not in (1, 3) or arguments[1:2] not in ([], ["--check"]):
        sys.exit(__doc__)
    with open(arguments[0], encoding="utf-8") as file:
        rows = compute(json.load(file))
    if len(arguments) == 1:
        json.dump(rows, sys.stdout, indent=1)
        print()
        return
    wrong = list(differences(rows, arguments[2]))
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(rows)} rows, {sum(row['count'] for row in rows)} events: {'differ' if wrong else 'equal'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
