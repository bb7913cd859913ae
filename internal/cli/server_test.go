package cli

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/app"
)

// Every setting of the file is a flag too, and what a flag says arrives.
func TestEverySettingIsAFlag(t *testing.T) {
	t.Parallel()
	var all app.Config
	names := (&env{}).serverCmd().Flags()
	v := reflect.ValueOf(&all).Elem()
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("yaml")
		flag := strings.ReplaceAll(key, "_", "-")
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString("of " + key)
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Slice:
			f.Set(reflect.ValueOf([]string{"of " + key}))
			flag = strings.TrimSuffix(flag, "s") // said once for each
		default:
			t.Fatalf("%s is a %s", key, f.Kind())
		}
		if names.Lookup(flag) == nil {
			t.Errorf("%s has no flag --%s", key, flag)
		}
	}
	got, err := settle("", all, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(all, got); d != "" {
		t.Error(d)
	}
}
