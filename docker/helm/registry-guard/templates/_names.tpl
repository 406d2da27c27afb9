{{- define "guard.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "guard.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "guard.labels" -}}
{{ include "guard.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The image of one of the Dockerfile's targets: (list root target). */}}
{{- define "guard.image" -}}
{{- $root := index . 0 }}{{ $target := index . 1 -}}
{{- $image := printf "%s/registry-guard-%s" $root.Values.image.registry $target -}}
{{- with index $root.Values.image.digests $target }}{{ $image }}@{{ . }}{{ else }}{{ $image }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* What `restricted` asks for, and a read-only root beside it. */}}
{{- define "guard.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# A private key in a volume would become readable for the group otherwise.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "guard.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A password of the database or of the broker, and an address that holds it: (list root login). */}}
{{- define "guard.database" -}}
{{- $root := index . 0 }}{{ $login := index . 1 }}{{ $db := $root.Values.database -}}
- name: DATABASE_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $db.existingSecret | quote }}, key: {{ $login }}}}
- name: GUARD_DATABASE_URL
  value: {{ printf "postgresql://%s:$(DATABASE_PASSWORD)@%s:%v/%s?sslmode=%s%s" (eq $login "owner" | ternary "guard" (printf "guard_%s" $login)) $db.host $db.port $db.name $db.sslmode ($db.rootCertificate | empty | ternary "" (printf "&sslrootcert=%s" $db.rootCertificate)) | quote }}
{{- end }}
