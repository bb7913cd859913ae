package features

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"falaj/internal/kernel/fault"
)

// Rows travel between the two sides of a parity check as text: "" is null, else a letter for the type and the value.
// Numbers travel by 17 digits, which name every double.

// textSQL spells a row's column as that text.
func (p *plan) textSQL(column string) string {
	c := quote(column)
	var text string
	switch p.inputs[column] {
	case Number:
		text = "'n' || printf('%.17g', CAST(" + c + " AS DOUBLE))"
	case Timestamp:
		text = "'t' || CAST(epoch_us(CAST(" + c + " AS TIMESTAMP WITH TIME ZONE)) AS VARCHAR)"
	default: // request text, and keys that no expression reads
		text = "'s' || CAST(" + c + " AS VARCHAR)"
	}
	return "CASE WHEN " + c + " IS NULL THEN '' ELSE " + text + " END"
}

func (p *plan) fromText(column, text string) (any, error) {
	if text == "" {
		return nil, nil
	}
	switch text[0] {
	case 'n':
		v, err := strconv.ParseFloat(text[1:], 64)
		return v, unparsed(column, err)
	case 't':
		us, err := strconv.ParseInt(text[1:], 10, 64)
		return time.UnixMicro(us).UTC(), unparsed(column, err)
	}
	return text[1:], nil
}

func unparsed(column string, err error) error {
	return fault.Wrap(err, fault.Internal, "Column "+column+" of the parity check could not be read back.", "")
}

// valuesSQL writes logged rows as a SELECT: a spine without a dataset.
func (p *plan) valuesSQL(rows []Logged) (string, error) {
	cols := p.rowColumns()
	var b strings.Builder
	b.WriteString("SELECT * FROM (VALUES ")
	for i, r := range rows {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "(%d, %s", i, literal(r.At))
		in, err := p.requestRow(r.Row, i)
		if err != nil {
			return "", err
		}
		for _, c := range cols {
			v, request := in[c], p.inputs[c] != ""
			if !request {
				text, ok := canonical(r.Row[c])
				if v = any(text); !ok {
					v = nil
				}
			}
			b.WriteString(", " + valueSQL(v, p.inputs[c]))
		}
		b.WriteString(")")
	}
	b.WriteString(") AS logged(logged_row, __logged_at")
	for _, c := range cols {
		b.WriteString(", " + quote(c))
	}
	b.WriteString(")")
	return b.String(), nil
}

func valueSQL(v any, t Type) string {
	as := map[Type]string{Number: "DOUBLE", Timestamp: "TIMESTAMP WITH TIME ZONE", Text: "VARCHAR", "": "VARCHAR"}[t]
	text := "NULL"
	switch v := v.(type) {
	case string:
		text = quoteText(v)
	case bool:
		text = strconv.FormatBool(v)
	case time.Time:
		return literal(v)
	case float64:
		switch {
		case math.IsNaN(v):
			text = "'nan'"
		case math.IsInf(v, 0):
			text = "'" + strings.ToLower(strconv.FormatFloat(v, 'g', -1, 64)) + "'"
		default:
			text = "'" + strconv.FormatFloat(v, 'g', -1, 64) + "'"
		}
	}
	return "CAST(" + text + " AS " + as + ")"
}
