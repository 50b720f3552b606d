"""Writes one event with psycopg 3: DATABASE_URL=postgres://shop@127.0.0.1:5432/shop python3 write.py"""

import json
import os

import psycopg

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    # begin
    # Python, psycopg 3
    with connection.transaction():
        connection.execute("UPDATE orders SET state = 'placed' WHERE id = %s", [42])
        connection.execute(
            "INSERT INTO outbox (topic, key, type, payload) VALUES (%s, %s, %s, %s)",
            ["orders", "order-42", "OrderPlaced", json.dumps({"total": 3})],
        )
    # end
