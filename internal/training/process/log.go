package process

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"falaj/internal/secret"
	"falaj/internal/training"
)

// maxLine is where a long line is cut in pieces, in bytes.
const maxLine = 16 << 10

// drain passes both streams on, line by line, until all processes of the job have closed them.
func drain(job training.Job, out, errs io.Reader) {
	mask, hide := masker(job.Secrets), secret.NewRedactor(job.Hidden...)
	// Once more after cleaning: a control character inside a value must not carry it through.
	shown := func(s string) string { return hide.Text(clean(mask.Replace(s))) }
	var one sync.Mutex
	var wg sync.WaitGroup
	for name, r := range map[string]io.Reader{"out": out, "err": errs} {
		wg.Go(func() {
			lines := bufio.NewReaderSize(r, maxLine)
			rest := "" // the end of a piece of a long line that may be the beginning of a value
			for {
				raw, err := lines.ReadSlice('\n')
				text := rest + string(raw)
				if rest = ""; errors.Is(err, bufio.ErrBufferFull) {
					text, rest = hide.Cut(text)
				} else {
					text = hide.Text(text)
				}
				if len(text) > 0 && job.Log != nil {
					line := training.Line{At: time.Now(), Stream: name, Text: shown(text)}
					one.Lock()
					job.Log(line)
					one.Unlock()
				}
				if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// masker hides secret values. Very short ones are left, they would mask ordinary text.
func masker(secrets map[string]string) *strings.Replacer {
	var pairs []string
	for _, v := range secrets {
		if len(v) >= 6 {
			pairs = append(pairs, v, "[secret]")
		}
	}
	return strings.NewReplacer(pairs...)
}

// clean keeps what a line shows at its end: progress bars overwrite themselves with \r. Control characters go, so that
// a log cannot drive the terminal it is shown on.
func clean(line string) string {
	line = strings.TrimRight(line, "\r\n")
	if at := strings.LastIndexByte(line, '\r'); at >= 0 {
		line = line[at+1:]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(line, "\uFFFD"))
}
