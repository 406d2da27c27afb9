{{/* The variables of a container: (list root container-of-processes.yaml gpu). */}}
{{- define "guard.environment" -}}
{{- $root := index . 0 }}{{ $one := index . 1 }}{{ $gpu := index . 2 }}{{ $v := $root.Values -}}
- {name: GUARD_DATA_DIR, value: /var/lib/guard}
- {name: GUARD_TRUSTED_KEYS_FILE, value: /etc/guard-trust/trusted.json}
- {name: GUARD_INTAKE_BUCKET, value: {{ $v.store.intakeBucket | quote }}}
- {name: GUARD_BLOB_URL, value: {{ printf "s3://%s/sha256" $v.store.blobBucket | quote }}}
{{- with $one.login }}
{{ include "guard.database" (list $root .) }}
{{- end }}
{{- if has "queue" $one.settings }}
- name: BROKER_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $v.broker.existingSecret | quote }}, key: password}}
- name: GUARD_REDIS_URL
  value: {{ printf "%s://:$(BROKER_PASSWORD)@%s:%v/0" (ternary "rediss" "redis" $v.broker.tls) $v.broker.host $v.broker.port | quote }}
{{- end }}
{{- if has "store" $one.settings }}
- {name: GUARD_S3_ENDPOINT, value: {{ $v.store.endpoint | quote }}}
- {name: GUARD_S3_REGION, value: {{ $v.store.region | quote }}}
{{- with $v.store.existingSecret }}
- name: GUARD_S3_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: access-key}}
- name: GUARD_S3_SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: secret-key}}
{{- end }}
{{- end }}
{{- if has "webhook" $one.settings }}
- name: GUARD_WEBHOOK_TOKEN
  valueFrom: {secretKeyRef: {name: {{ $v.webhook.existingSecret | quote }}, key: token}}
- name: GUARD_WEBHOOK_HMAC_KEY
  valueFrom: {secretKeyRef: {name: {{ $v.webhook.existingSecret | quote }}, key: hmac-key, optional: true}}
{{- end }}
{{- if has "hooks" $one.settings }}
- {name: GUARD_HOOKS_KEY_FILE, value: /run/guard-hooks/hooks.key}
{{- end }}
{{- if has "events" $one.settings }}
- {name: GUARD_SQS_QUEUE_URL, value: {{ $v.events.queueUrl | quote }}}
- {name: GUARD_SQS_ENDPOINT, value: {{ $v.events.endpoint | quote }}}
{{- end }}
{{- if has "signer" $one.settings }}
- {name: GUARD_SIGNING_KEY_FILE, value: /run/guard-keys/signing.pem}
- {name: GUARD_CHECKPOINT_DIR, value: /run/guard-keys/checkpoints}
- {name: GUARD_TORCHSERVE_MANAGEMENT, value: "unix:/run/guard-ts/m.sock"}
- {name: GUARD_TORCHSERVE_INFERENCE, value: "http://127.0.0.1:8080"}
- {name: GUARD_TORCHSERVE_RUN_DIR, value: /run/guard-ts}
- {name: GUARD_TORCHSERVE_STORE, value: /run/guard-ts/store}
{{- if eq $v.publisher "open_inference" }}
- {name: GUARD_PUBLISHER, value: open_inference}
- {name: GUARD_OPEN_INFERENCE_MANAGEMENT, value: "unix:/run/guard-ts/m.sock"}
- {name: GUARD_OPEN_INFERENCE_ADDRESS, value: "http://127.0.0.1:8080"}
- {name: GUARD_OPEN_INFERENCE_RUN_DIR, value: /run/guard-ts}
- {name: GUARD_OPEN_INFERENCE_STORE, value: /run/guard-ts/models}
{{- end }}
{{- end }}
{{- if $gpu }}
- {name: GUARD_DEVICE, value: cuda}
{{- end }}
{{- end }}
