package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"falaj/internal/api"
	"falaj/internal/kernel/fault"
)

const day = 24 * time.Hour

func date(month time.Month, d int) time.Time {
	return time.Date(2013, month, d, 0, 0, 0, 0, time.UTC)
}

// replay plays event time from `from` until `to`: each day's flights in one request, then what became known that day,
// then the clock, then it waits until everything that set off has settled. A day whose end the project's clock has
// passed was played before. since is where this stretch of days began: flights of before may become known now.
func (d *play) replay(ctx context.Context, since, from, to time.Time) error {
	mark, err := d.watermark(ctx)
	if err != nil {
		return err
	}
	labels := slices.DeleteFunc(slices.Clone(between(d.flights, since, to)), func(f flight) bool { return f.known < from.UnixMicro() })
	slices.SortStableFunc(labels, func(a, b flight) int { return int(min(max(a.known-b.known, -1), 1)) })
	for at := from; at.Before(to); at = at.Add(day) {
		end := at.Add(day)
		n, _ := slices.BinarySearchFunc(labels, end.UnixMicro(), func(f flight, us int64) int { return int(min(max(f.known-us, -1), 1)) })
		today := between(d.flights, at, end)
		if mark.Before(end) {
			d.env.progress(fmt.Sprintf("%s  %s predictions sent", at.Format("2 January"), thousands(d.sent)))
			// The request is recorded as a whole: when event time stands at its last row, it came before a kill.
			if len(today) > 0 && mark.UnixMicro() < today[len(today)-1].at {
				if err := d.predict(ctx, "production", "flights-"+at.Format("2006-01-02"), today); err != nil {
					return err
				}
			}
			if err := d.label(ctx, labels[:n]); err != nil {
				return err
			}
			if err := d.clock(ctx, end); err != nil {
				return err
			}
			busy, err := d.settle(ctx)
			if err != nil {
				return err
			}
			if busy || end.Day() == 1 {
				if err := d.react(ctx, end); err != nil {
					return err
				}
			}
			if d.rolling != "" {
				if err := d.canary(ctx); err != nil {
					return err
				}
			}
		}
		d.sent += len(today)
		labels = labels[n:]
	}
	return nil
}

func (d *play) settled(ctx context.Context) (s api.Settled, err error) {
	return s, d.bot.call(ctx, "GET", in(demoProject, "settled"), nil, &s)
}

func (d *play) watermark(ctx context.Context) (time.Time, error) {
	s, err := d.settled(ctx)
	if err != nil || s.Watermark == nil {
		return time.Time{}, err
	}
	at := time.UnixMicro(*s.Watermark).UTC()
	if at.Year() > 2014 {
		return at, fault.New(fault.Conflict, "Somebody asked the model about today ("+at.Format("2006-01-02")+"), so the project's clock has left 2013 and the rest of the year cannot be played.", "Play it in a fresh folder: falaj demo flights --data DIR")
	}
	return at, nil
}

// settle waits until nothing is under way any more, and says whether anything was.
func (d *play) settle(ctx context.Context) (busy bool, err error) {
	wait := 5 * time.Millisecond
	for {
		s, err := d.settled(ctx)
		if err != nil || s.Settled {
			return busy, err
		}
		busy = true
		if len(s.Runs) > 0 {
			d.env.progress("waiting for pipeline " + s.Runs[0])
		}
		select {
		case <-ctx.Done():
			return busy, ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, 200*time.Millisecond)
	}
}

func (d *play) clock(ctx context.Context, to time.Time) error {
	return d.bot.call(ctx, "POST", in(demoProject, "clock"), map[string]int64{"to": to.UnixMicro()}, nil)
}

// predict sends flights as one Open Inference Protocol request: entity keys and request columns as named tensors, event
// time and unit of each row as parameters. Features are looked up by the server.
func (d *play) predict(ctx context.Context, environment, id string, list []flight) error {
	b := append(d.buf[:0], `{"id":"`...)
	b = append(append(b, id...), `","parameters":{"at":[`...)
	b = each(b, list, func(b []byte, f *flight) []byte { return strconv.AppendInt(b, f.at, 10) })
	b = append(b, `],"unit":[`...)
	b = each(b, list, func(b []byte, f *flight) []byte { return append(f.unit(append(b, '"')), '"') })
	b = append(b, `]},"inputs":[`...)
	for i, column := range []struct {
		name string
		text func(*flight) string
		num  func(*flight) int
	}{
		{"origin", func(f *flight) string { return f.origin }, nil}, {"dest", func(f *flight) string { return f.dest }, nil}, {"carrier", func(f *flight) string { return f.carrier }, nil},
		{"distance", nil, func(f *flight) int { return f.distance }}, {"hour", nil, func(f *flight) int { return f.hour }}, {"weekday", nil, func(f *flight) int { return f.weekday }},
	} {
		if i > 0 {
			b = append(b, ',')
		}
		kind := "INT64"
		if column.text != nil {
			kind = "BYTES"
		}
		b = fmt.Appendf(b, `{"name":"%s","datatype":"%s","shape":[%d],"data":[`, column.name, kind, len(list))
		b = each(b, list, func(b []byte, f *flight) []byte {
			if column.text != nil {
				return append(append(append(b, '"'), column.text(f)...), '"')
			}
			return strconv.AppendInt(b, int64(column.num(f)), 10)
		})
		b = append(b, "]}"...)
	}
	d.buf = append(b, "]}"...)
	name := demoModel
	if environment != "production" {
		name += "@" + environment
	}
	var got struct {
		Outputs []struct {
			Shape []int           `json:"shape"`
			Data  json.RawMessage `json:"data"`
		} `json:"outputs"`
	}
	if err := d.bot.send(ctx, "POST", "/p/"+demoProject+"/v2/models/"+name+"/infer", "application/json", bytes.NewReader(d.buf), &got); err != nil {
		return err
	}
	if len(got.Outputs) != 1 || len(got.Outputs[0].Shape) == 0 || got.Outputs[0].Shape[0] != len(list) {
		return fault.Newf(fault.Internal, "The model did not answer all %d flights of %s.", len(list), id)
	}
	return nil
}

func each(b []byte, list []flight, add func([]byte, *flight) []byte) []byte {
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = add(b, &list[i])
	}
	return b
}

// label tells the server what became of flights. Again is no harm.
func (d *play) label(ctx context.Context, list []flight) error {
	for len(list) > 0 {
		part := list[:min(len(list), 5000)]
		list = list[len(part):]
		b := append(d.buf[:0], `{"labels":[`...)
		b = each(b, part, func(b []byte, f *flight) []byte {
			b = f.unit(append(b, `{"unit":"`...))
			b = strconv.AppendInt(append(b, `","at":`...), f.at, 10)
			value := `,"value":0,"known_at":`
			if f.late {
				value = `,"value":1,"known_at":`
			}
			return append(strconv.AppendInt(append(b, value...), f.known, 10), '}')
		})
		d.buf = append(b, "]}"...)
		path := api.Base + in(demoProject, "models", demoModel, "labels")
		if err := d.bot.send(ctx, "POST", path, "application/json", bytes.NewReader(d.buf), nil); err != nil {
			return err
		}
		d.labels += len(part)
	}
	return nil
}
