package e2e_test

// booksPlants are disagreements that are no order's, in what the ledger and the movements of stock keep. Each is
// planted together with those whose repairs meet its own.
func booksPlants() []planted {
	done := "DONE"
	return []planted{
		{
			name: "the record of a deposit is lost", kinds: []string{"transfer-mismatch"},
			repair: done, beside: []string{"balance-mismatch"},
			plant: func(g *garden, _ order) string {
				g.exec(g.payment, `DELETE FROM transfers WHERE to_account = $1 AND currency = 'EUR'`, g.user)
				return g.user
			},
		},
		{
			name: "the balance of a further account was changed by hand", kinds: []string{"balance-mismatch"},
			repair: done, beside: []string{"transfer-mismatch", "transfer-unbalanced"},
			plant: func(g *garden, _ order) string {
				g.exec(g.payment, `UPDATE accounts SET balance = balance + 7 WHERE id = $1`, g.user+"\tUSD")
				return g.user
			},
		},
		{
			name: "an entry names another as the other side", kinds: []string{"entries-mismatch"},
			repair: "NONE", beside: []string{"charge-without-payment", "transfer-unbalanced"},
			plant: func(g *garden, _ order) string {
				g.exec(g.payment, `UPDATE entries SET counterparty = counterparty || 'x' WHERE account_id = $1 AND kind = 'deposit'`, g.user+"\tCHF")
				return g.user
			},
			undo: func(g *garden, at string) {
				g.exec(g.payment, `UPDATE entries SET counterparty = 'external.CHF' WHERE account_id = $1 AND kind = 'deposit'`, at+"\tCHF")
			},
		},
		{
			name: "units were put on the shelf by hand", kinds: []string{"stock-mismatch"},
			repair: done, beside: []string{"reserved-wrong-items", "stock-mismatch"},
			plant: func(g *garden, _ order) string {
				g.exec(g.inventory, `UPDATE products SET stock = stock + 1, available = available + 1 WHERE id = $1`, g.shelves[0])
				return g.shelves[0]
			},
		},
		{
			name: "a count is there twice", kinds: []string{"stock-mismatch"},
			repair: done, beside: []string{"stock-mismatch"},
			plant: func(g *garden, _ order) string {
				g.exec(g.inventory, `INSERT INTO movements (product_id, n, id, kind, units, delta, stock, note)
					SELECT product_id, max(n) + 1, uuidv7(), 'count', max(stock), 0, max(stock), 'planted' FROM movements WHERE product_id = $1 GROUP BY 1`, g.shelves[1])
				return g.shelves[1]
			},
		},
	}
}
