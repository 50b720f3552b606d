// Writes one event with pg: DATABASE_URL=postgres://shop@127.0.0.1:5432/shop node write.mts (Node 22.18 or newer, or compiled by tsc)
import pg from "pg";

const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
// begin
// TypeScript, pg
await client.query("BEGIN");
await client.query("UPDATE orders SET state = 'placed' WHERE id = $1", [42]);
await client.query("INSERT INTO outbox (topic, key, type, payload) VALUES ($1, $2, $3, $4)",
  ["orders", "order-42", "OrderPlaced", JSON.stringify({ total: 3 })]);
await client.query("COMMIT");   // on any error: ROLLBACK
// end
await client.end();
