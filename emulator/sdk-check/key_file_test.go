package boltz

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

type account struct {
	t *testing.T
}

func (account account) call(client *http.Client, key, method, path, body string) (int, map[string]any) {
	account.t.Helper()
	request, err := http.NewRequest(method, os.Getenv("BOLTZ_BASE_URL")+"/compute/v1/"+path, bytes.NewBufferString(body))
	if err != nil {
		account.t.Fatal(err)
	}
	if key != "" {
		request.Header.Set("x-api-key", key)
	}
	response, err := client.Do(request)
	if err != nil {
		account.t.Fatal(err)
	}
	defer response.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		account.t.Fatal(err)
	}
	return response.StatusCode, answer
}

// create returns the id and the value of a new key.
func (account account) create(name string) (string, string) {
	account.t.Helper()
	_, answer := account.call(http.DefaultClient, os.Getenv("BOLTZ_API_KEY"), "POST", "admin/api-keys", `{"name": "`+name+`"}`)
	return answer["key_details"].(map[string]any)["id"].(string), answer["key"].(string)
}

// mount writes the file as the kubelet does: into a new folder, to which it then points a link.
func mount(t *testing.T, folder, version, key string) {
	t.Helper()
	data := filepath.Join(folder, "..data")
	for _, err := range []error{
		os.Mkdir(filepath.Join(folder, version), 0o755),
		os.WriteFile(filepath.Join(folder, version, "BOLTZ_API_KEY"), []byte(key), 0o644),
		os.Symlink(version, data+"_tmp"),
		os.Rename(data+"_tmp", data),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAClientThatReadsAFileTakesTheNewKey(t *testing.T) {
	account, folder := account{t}, t.TempDir()
	file := filepath.Join(folder, "BOLTZ_API_KEY")
	if err := os.Symlink("..data/BOLTZ_API_KEY", file); err != nil {
		t.Fatal(err)
	}
	client := NewClient(file)
	expect := func(id string) {
		t.Helper()
		if status, me := account.call(client, "", "GET", "auth/me", ""); status != 200 || me["api_key_id"] != id {
			t.Fatalf("%d %v instead of %s", status, me, id)
		}
	}

	old, oldValue := account.create("old")
	mount(t, folder, "..1", oldValue)
	expect(old)
	current, value := account.create("new")
	mount(t, folder, "..2", value+"\n")
	account.call(http.DefaultClient, os.Getenv("BOLTZ_API_KEY"), "POST", "admin/api-keys/"+old+"/revoke", "")
	expect(current)
	if status, _ := account.call(http.DefaultClient, oldValue, "GET", "auth/me", ""); status != 401 {
		t.Fatalf("the old key: %d", status)
	}
}
