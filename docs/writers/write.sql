-- Writes one event: psql URL -v ON_ERROR_STOP=1 -f write.sql
-- SQL, in any transaction
BEGIN;
UPDATE orders SET state = 'placed' WHERE id = 42;
INSERT INTO outbox (topic, key, type, payload) VALUES ('orders', 'order-42', 'OrderPlaced', '{"total": 3}');
COMMIT;
