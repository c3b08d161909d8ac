package facts

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// A digest over ids alone tells which members a set has, and not what is held of them. So two services that hold the
// same of their members also digest that, each member as its id and a text in which equal things are equal bytes,
// wherever they are stored:
//
//	money  4200 3:EUR u-1              amount in minor units, length of the currency in bytes, currency, user
//	items  [["p-1",2],["p-7",1]]       JSON without spaces, one pair of product and units a line, sorted by the bytes of the product's id
//
// The text is written by SQL, from the columns as they are ([moneySQL], [ItemsSQL]); [MoneyText] and [ItemsText] say
// the same in Go. A bucket has the XOR of the first 8 bytes of the SHA-256 of each member's id (16 bytes) and text
// (UTF-8).

// Item is a line of an order or a reservation.
type Item struct {
	ProductID string
	Quantity  int64 // units
}

// ContentHash is a member's part of a digest of what is held of it: the text is MoneyText or ItemsText.
func ContentHash(id uuid.UUID, text string) uint64 {
	sum := sha256.Sum256(append(id[:], text...))
	return binary.BigEndian.Uint64(sum[:8])
}

// MoneyText is who pays how much, in minor units.
func MoneyText(amount int64, currency, user string) string {
	return strconv.FormatInt(amount, 10) + " " + strconv.Itoa(len(currency)) + ":" + currency + " " + user
}

// ItemsText is what is ordered or reserved, whatever the order of the lines. Lines of one product are not added up:
// neither service stores such.
func ItemsText(items []Item) string {
	sorted := slices.SortedFunc(slices.Values(items), func(a, b Item) int { return strings.Compare(a.ProductID, b.ProductID) })
	pairs := make([][2]any, len(sorted))
	for i, item := range sorted {
		pairs[i] = [2]any{item.ProductID, item.Quantity}
	}
	text, err := json.Marshal(pairs)
	if err != nil {
		panic(err) // texts and numbers
	}
	return string(text)
}

// contentSQL is the SQL of a member's ContentHash, as bigint.
func contentSQL(id, text string) string {
	return `substr(sha256(uuid_send(` + id + `) || convert_to(` + text + `, 'UTF8')), 1, 8)::bigint`
}

// moneySQL is the SQL of MoneyText.
func (s Source) moneySQL() string {
	return strings.NewReplacer("{amount}", s.Amount, "{currency}", s.Currency, "{user}", s.User).Replace(
		`{amount} || ' ' || octet_length({currency}) || ':' || {currency} || ' ' || {user}`)
}

// ItemsSQL is the SQL of ItemsText, of a jsonb column of lines with productId and quantity. What is no list of lines
// has a text as well, which no list has: damage must differ, and not stop the digest. One or two lines, which most
// orders have, are put in order without a sort.
func ItemsSQL(column string) string {
	line := func(i string) string {
		return `'[' || coalesce((` + i + ` -> 'productId')::text, 'null') || ',' || coalesce((` + i + ` -> 'quantity')::text, 'null') || ']'`
	}
	return strings.NewReplacer("{items}", column, "{first}", line(column+" -> 0"), "{second}", line(column+" -> 1"), "{line}", line("i")).Replace(
		`CASE WHEN jsonb_typeof({items}) <> 'array' THEN {items}::text WHEN jsonb_array_length({items}) = 1 THEN '[' || {first} || ']'
    WHEN jsonb_array_length({items}) = 2 THEN CASE WHEN ({items} -> 0 ->> 'productId') COLLATE "C" <= ({items} -> 1 ->> 'productId') COLLATE "C"
        THEN '[' || {first} || ',' || {second} || ']' ELSE '[' || {second} || ',' || {first} || ']' END
    ELSE (SELECT '[' || coalesce(string_agg({line}, ',' ORDER BY i ->> 'productId' COLLATE "C", i), '') || ']' FROM jsonb_array_elements({items}) AS i) END`)
}
