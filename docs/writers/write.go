// Writes one event with pgx: DATABASE_URL=postgres://shop@127.0.0.1:5432/shop go run write.go
package main

import (
	"context"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
)

func main() {
	ctx := context.Background()
	connection, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close(ctx)
	// begin
	// Go, pgx
	err = pgx.BeginFunc(ctx, connection, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE orders SET state = 'placed' WHERE id = $1", 42); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO outbox (topic, key, type, payload) VALUES ($1, $2, $3, $4)",
			"orders", "order-42", "OrderPlaced", `{"total": 3}`)
		return err
	})
	// end
	if err != nil {
		log.Fatal(err)
	}
}
